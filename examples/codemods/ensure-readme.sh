#!/bin/sh
# Adds a README to a codebase that has none; others are left as they are.
set -eu
for readme in README README.*; do
    if [ -e "$readme" ]; then
        echo "$readme is there"
        exit 0
    fi
done
echo "# $(basename "$(git config --get remote.origin.url || pwd)" .git)" >README.md
if [ -n "${SVP_RESULT:-}" ]; then
    echo '{"code": "success", "description": "Add a README"}' >"$SVP_RESULT"
fi
