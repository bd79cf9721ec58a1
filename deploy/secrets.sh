#!/bin/sh
# Invents what deploy/compose.yaml needs in deploy/secrets/ (or in the folder given); what is there already stays.
# Compose mounts the files as they are, for users of other numbers: they are readable, and the folder is not.
set -eu

folder=${1:-$(dirname "$0")/secrets}
mkdir -p "$folder"
chmod 700 "$folder"
for name in admin-token cache-secret client-secret keycloak-admin-password redis-password; do
    [ -s "$folder/$name" ] && continue
    od -An -N32 -tx1 /dev/urandom | tr -d ' \n' >"$folder/$name.new"
    chmod 444 "$folder/$name.new"
    mv "$folder/$name.new" "$folder/$name"
    echo "made $folder/$name"
done
