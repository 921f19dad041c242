"""What each role of the site may do, and why where it is not narrower."""
