#!/usr/bin/env bash
# Runs the verifier's image as a cluster would: read-only, as nobody, without network or rights.
# Usage: image.sh IMAGE
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir "$folder/model" "$folder/verified"
chmod 755 "$folder"
chmod 777 "$folder/verified"
echo '{}' > "$folder/model/config.json"
openssl ecparam -name prime256v1 -genkey -noout -out "$folder/key.pem"
openssl ec -in "$folder/key.pem" -pubout -out "$folder/signer.pub"
chmod 644 "$folder"/*.pem "$folder"/*.pub
printf 'version = 1\n[signer]\npublic_key = "signer.pub"\n' > "$folder/policy.toml"
run() {
  docker run --rm --read-only --network none --cap-drop ALL --security-opt no-new-privileges \
    --tmpfs /tmp -v "$folder:/files:ro" -v "$folder/verified:/verified" "$@"
}
run --entrypoint /usr/local/bin/model_signing "$1" sign key /files/model \
  --private-key /files/key.pem --signature /verified/model.sig
mv "$folder/verified/model.sig" "$folder/model/model.sig"
run --entrypoint /usr/local/bin/model_signing "$1" verify key \
  --signature=/files/model/model.sig --public_key /files/signer.pub /files/model
run "$1" verify /files/model --policy /files/policy.toml --offline --copy-to /verified
cmp "$folder/model/config.json" "$folder/verified/config.json"
echo more >> "$folder/model/config.json"
if run "$1" verify /files/model --policy /files/policy.toml --offline; then
  echo "a changed model was verified" >&2
  exit 1
fi
