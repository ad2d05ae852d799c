# shellcheck shell=bash
# Steps of setup.sh: what is secret, encrypted by sops for this server's own age key, and what is not. A secret
# comes from a shell variable and reaches sops by a pipe. The file is written only when a value is new: to encrypt
# the same again would change every byte of it.
# shellcheck disable=SC2154 # variables of setup.sh

AGE_KEY=$ETC/age.key

with_sops() { SOPS_AGE_KEY_FILE=$AGE_KEY "$sops" --config "$ETC/.sops.yaml" "$@"; }

json_string() {
  local value=$1
  value=${value//\\/\\\\}
  value=${value//$'\n'/\\n}
  printf '"%s"' "${value//\"/\\\"}"
}

random_word() { head -c 24 /dev/urandom | base64 | tr '+/' '-_'; }

do_secrets() {
  local name
  : "${ADMIN_TOKEN:=$(random_word)}"
  if is_set TOOLS_REPO; then : "${GIT_WEBHOOK_SECRET:=$(random_word)}"; fi
  make_age_key
  record path "$SECRETS_FILE"
  new_names=()
  for name in "${SECRET_NAMES[@]}" $(compgen -v TOOL_SECRET_); do
    if is_set "$name" && [ "$(stored_secret "$name")" != "$(printf %s "${!name}")" ]; then new_names+=("$name"); fi
  done
  if [ ${#new_names[@]} -eq 0 ]; then return; fi
  mark_changed
  write_secrets
  say "    stored ${new_names[*]}"
}

make_age_key() {
  record path "$AGE_KEY"
  record path "$ETC/.sops.yaml"
  if ! [ -s "$AGE_KEY" ]; then
    rm -f "$AGE_KEY.new"
    (umask 077 && quietly 'age-keygen' age-keygen -o "$AGE_KEY.new")
    chmod 0400 "$AGE_KEY.new"
    mv -f "$AGE_KEY.new" "$AGE_KEY"
  fi
  # `millrace secrets add-recipient` changes this file: it is made once.
  if [ -s "$ETC/.sops.yaml" ]; then return; fi
  install_file "$ETC/.sops.yaml" <<YAML
# Who can read secrets.encrypted.yaml. Change it by \`millrace secrets add-recipient\` and \`remove-recipient\`,
# which encrypt the file again.
creation_rules:
  - path_regex: secrets\.encrypted\.yaml\$
    age:
      - $(age-keygen -y "$AGE_KEY") # server
YAML
}

stored_secret() {
  if ! [ -s "$SECRETS_FILE" ]; then return; fi
  with_sops --decrypt --extract "[\"$1\"]" "$SECRETS_FILE" 2>/dev/null </dev/null || true
}

# The pairs that are there, in sops's own spelling, without those that are new; then the new ones.
secret_pairs() {
  local line name
  if [ -s "$SECRETS_FILE" ]; then
    while IFS= read -r line; do
      [[ $line =~ ^[[:space:]]+\"([A-Za-z0-9_]+)\":\ (.*[^,]),?$ ]] || continue
      if [[ " ${new_names[*]} " != *" ${BASH_REMATCH[1]} "* ]]; then printf '"%s":%s\n' "${BASH_REMATCH[1]}" "${BASH_REMATCH[2]}"; fi
    done < <(with_sops --decrypt --output-type json "$SECRETS_FILE" </dev/null)
  fi
  for name in "${new_names[@]}"; do printf '"%s":%s\n' "$name" "$(json_string "${!name}")"; done
}

write_secrets() {
  if [ -s "$SECRETS_FILE" ] && ! with_sops --decrypt "$SECRETS_FILE" >/dev/null 2>"$work/sops" </dev/null; then
    fail "$SECRETS_FILE cannot be decrypted with $AGE_KEY." "$(tail -n 1 "$work/sops")" 'Bring the right key back, or move the file away and give the secrets again.'
  fi
  { printf '{' && secret_pairs | paste -sd , && printf '}'; } |
    with_sops --encrypt --filename-override "$SECRETS_FILE" --input-type json --output-type yaml /dev/stdin >"$work/encrypted" 2>"$work/sops" ||
    fail 'sops could not encrypt the secrets.' "$(tail -n 3 "$work/sops")"
  install -m 0600 "$work/encrypted" "$SECRETS_FILE.new"
  mv -f "$SECRETS_FILE.new" "$SECRETS_FILE"
}

# --- What is not secret ---

do_config() {
  : "${STREAMS:=local}" "${DATA_DIR:=$DATA}"
  # Of an earlier setup without a repository.
  if is_set TOOLS_REPO && [ "${TOOLS_PATH:-}" = "$ETC/tools" ]; then TOOLS_PATH=; fi
  if ! is_set TOOLS_REPO && ! is_set TOOLS_PATH; then
    # The examples become the owner's own, to be changed there.
    TOOLS_PATH=$ETC/tools
    record path "$TOOLS_PATH"
    if ! [ -d "$TOOLS_PATH" ]; then
      rm -rf "$TOOLS_PATH.new"
      cp -r "$release/tools" "$TOOLS_PATH.new"
      mv -T "$TOOLS_PATH.new" "$TOOLS_PATH"
    fi
  fi
  local lines
  lines=$(env_lines)
  install_file "$ENV_FILE" <<<"$lines"
  install_file /usr/local/bin/millrace 0755 <"$release/deploy/millrace"
}

# The file as it is, with our variables at their values; so what else the owner put there stays.
env_lines() {
  local line name
  local -A written=()
  # Its last line may have no end.
  while IFS= read -r line || [ -n "$line" ]; do
    name=${line%%=*}
    if [[ " ${CONFIG_NAMES[*]} " == *" $name "* ]]; then
      written[$name]=1
      if is_set "$name"; then env_line "$name"; fi
    else
      printf '%s\n' "$line"
    fi
  done < <(cat "$ENV_FILE" 2>/dev/null || printf '# Variables of Millrace that are not secret: docs/configuration.md. After a change: systemctl restart millrace.target\n')
  for name in "${CONFIG_NAMES[@]}"; do
    if is_set "$name" && [ -z "${written[$name]:-}" ]; then env_line "$name"; fi
  done
}

# As systemd reads it, and a shell, for which $ and ` are more than themselves; on one line.
env_line() {
  local value=${!1}
  if ! [[ $value =~ ^[A-Za-z0-9@%_+=:,./-]*$ ]]; then
    value=$(json_string "$value")
    value=${value//\$/\\$}
    value=${value//\`/\\\`}
  fi
  printf '%s=%s\n' "$1" "$value"
}
