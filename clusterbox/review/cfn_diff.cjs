// Compare pairs of templates with the library of the CDK CLI.
// stdin: [{stack, base, head}] with paths or null. stdout: [{stack, resources, other, text}].
'use strict';

const fs = require('fs');
const { Writable } = require('stream');
const { fullDiff, formatDifferences } = require('@aws-cdk/cloudformation-diff');

const ANSI = /\x1b\[[0-9;]*m/g;

function read(path) {
  return path === null ? {} : JSON.parse(fs.readFileSync(path, 'utf8'));
}

function format(diff) {
  const chunks = [];
  const stream = new Writable({ write(chunk, _encoding, done) { chunks.push(chunk); done(); } });
  formatDifferences(stream, diff, {}, 2);
  return Buffer.concat(chunks).toString('utf8').replace(ANSI, '').trim();
}

function compare({ stack, base, head }) {
  const before = read(base);
  const after = read(head);
  const diff = fullDiff(before, after);
  const resources = [];
  diff.resources.forEachDifference((id, change) => {
    const properties = Object.entries(change.propertyUpdates)
      .map(([name, update]) => ({ name, impact: update.changeImpact ?? 'WILL_UPDATE' }));
    const known = (change.newValue ?? change.oldValue).Metadata ?? {};
    resources.push({
      id,
      type: change.resourceType,
      // A custom resource's properties have no specification: any change of them is an update.
      impact: change.changeImpact === 'NO_CHANGE' ? 'WILL_UPDATE' : change.changeImpact,
      path: known['aws:cdk:path'] ?? id,
      properties,
    });
  });
  return {
    stack,
    resources,
    other: diff.differenceCount - diff.resources.differenceCount,
    text: diff.isEmpty ? '' : format(diff),
  };
}

const pairs = JSON.parse(fs.readFileSync(0, 'utf8'));
process.stdout.write(JSON.stringify(pairs.map(compare)));
