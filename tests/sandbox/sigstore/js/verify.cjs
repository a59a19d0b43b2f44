// Verifies a Sigstore bundle with the JavaScript implementation, at its strictest: one signed
// certificate timestamp, one log entry, one RFC 3161 timestamp.
// usage: node verify.cjs BUNDLE TRUSTED_ROOT IDENTITY ISSUER
'use strict';
const fs = require('node:fs');
const { bundleFromJSON } = require('@sigstore/bundle');
const { TrustedRoot } = require('@sigstore/protobuf-specs');
const { Verifier, toSignedEntity, toTrustMaterial } = require('@sigstore/verify');

const [bundlePath, rootPath, identity, issuer] = process.argv.slice(2);
const read = (path) => JSON.parse(fs.readFileSync(path, 'utf8'));
const trust = toTrustMaterial(TrustedRoot.fromJSON(read(rootPath)));
const verifier = new Verifier(trust, { ctlogThreshold: 1, tlogThreshold: 1, tsaThreshold: 1 });
try {
  verifier.verify(toSignedEntity(bundleFromJSON(read(bundlePath))), {
    subjectAlternativeName: identity,
    extensions: { issuer },
  });
} catch (error) {
  console.error(`refused: ${error.code}: ${error.message}`);
  process.exit(1);
}
console.log('verified');
