#!/bin/sh
# Removes white space at the ends of lines, and sees that each text file ends in a newline.
# A codemod in the silver-platter protocol: it changes the checkout it runs in, and says in $SVP_RESULT what it did.
set -eu
count=0
list=$(mktemp)
trap 'rm -f "$list"' EXIT
# Text files that git tracks; -I leaves binary ones out.
git grep -I --name-only -e '' >"$list" || true
while IFS= read -r file; do
    before=$(cksum <"$file")
    sed -i 's/[[:blank:]]*$//' "$file"
    if [ -s "$file" ] && [ -n "$(tail -c 1 "$file")" ]; then
        echo >>"$file"
    fi
    [ "$before" = "$(cksum <"$file")" ] || count=$((count + 1))
done <"$list"
echo "tidied $count files"
if [ -n "${SVP_RESULT:-}" ]; then
    printf '{"code": "success", "description": "Remove white space at line ends", "value": %d}\n' "$count" >"$SVP_RESULT"
fi
