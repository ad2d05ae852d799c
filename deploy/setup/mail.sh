# shellcheck shell=bash
# Steps of setup.sh at Resend, and what it says at the end. The key goes to `millrace setup resend` by standard
# input, and the webhook's signing secret comes back by its standard output.
# shellcheck disable=SC2154 # variables of setup.sh

do_resend() {
  local secret='' status=0 options=(--public-url "$PUBLIC_URL") domain
  for domain in ${MAIL_DOMAIN//,/ }; do options+=(--domain "$domain"); done
  if is_set RESEND_BASE_URL; then options+=(--base-url "$RESEND_BASE_URL"); fi
  if [ "${MILLRACE_WAIT_DNS:-}" = 1 ]; then options+=(--wait); fi
  : >"$work/resend"
  # What it says is shown while it waits, and again at the end.
  secret=$(printf '%s\n' "$RESEND_API_KEY" | "$OPT/bin/node" "$release/src/main.ts" setup resend "${options[@]}" 2> >(tee "$work/resend" | sed 's/^/    /' >&2)) || status=$?
  cat "$work/resend" >&8
  if [ -n "$secret" ]; then
    add_webhook_secret "$secret"
  elif ! is_set RESEND_WEBHOOK_SECRET; then
    if [ "$status" -eq 0 ] && [ "${MILLRACE_UNATTENDED:-}" != 1 ]; then
      ask RESEND_WEBHOOK_SECRET "The webhook's signing secret (whsec_…; not shown)"
    else
      fail 'There is no signing secret of the webhook.' 'What Resend said stands above. Set RESEND_WEBHOOK_SECRET, or a key that may make a webhook, and run setup again.'
    fi
  elif [ "$status" -ne 0 ]; then
    # A secret is known, so Millrace can start; but a refused key would read no mail.
    if grep -q 'does not accept' "$work/resend"; then fail 'Resend does not accept RESEND_API_KEY.' 'Set one with full access: https://resend.com/api-keys'; fi
    say '    Going on with the signing secret that is known; look at the webhook at https://resend.com/webhooks.'
  fi
}

# Both stay valid where the owner gave one by hand; the newest stands first, as in a rotation.
add_webhook_secret() {
  if [[ " ${RESEND_WEBHOOK_SECRET:-} " != *" $1 "* ]]; then
    RESEND_WEBHOOK_SECRET="$1${RESEND_WEBHOOK_SECRET:+ $RESEND_WEBHOOK_SECRET}"
  fi
}

show_summary() {
  local host domain
  host=$(public_host)
  domain=${MAIL_DOMAIN%%,*}
  say ""
  say "Millrace runs: ${MAIL_DOMAIN}, release $(basename "$release")."
  say ''
  say 'What is left to check:'
  say '  1. DNS. This name must lead here:'
  say "       A      $host   $(own_address)"
  say '     and at Resend:'
  sed 's/^/     /' "$work/resend"
  say "  2. The webhook: $PUBLIC_URL/webhooks/resend. Resend lists its attempts at https://resend.com/webhooks."
  web_summary "$host"
  say "  3. A first mail, to reverser@$domain with the text abc: the answer is cba. Then: millrace trace MESSAGE-ID"
  say "  4. The console: $PUBLIC_URL/ asks for ADMIN_TOKEN:"
  say "       sudo env SOPS_AGE_KEY_FILE=$AGE_KEY sops --decrypt --extract '[\"ADMIN_TOKEN\"]' $SECRETS_FILE"
  if is_set TOOLS_REPO; then say "  5. A push is live at once with a webhook of the tools repository to $PUBLIC_URL/webhooks/git (secret: GIT_WEBHOOK_SECRET, there too)."; fi
}

# Of the way to the internet; behind a translated address it is another one.
own_address() {
  local address
  address=$(ip -4 route get 1.1.1.1 2>/dev/null | grep -oP 'src \K\S+' || true)
  case $address in '' | 10.* | 192.168.* | 172.1[6-9].* | 172.2?.* | 172.3[01].*) echo "(this server's public address)" ;; *) echo "$address" ;; esac
}

public_host() {
  local host=${PUBLIC_URL#*://}
  printf '%s\n' "${host%%[:/]*}"
}
