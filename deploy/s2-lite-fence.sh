#!/usr/bin/env bash
# Run by s2-lite.service before its server: is the unit's fence (IPAddressDeny=) in force? `s2 lite` listens on every
# address and asks nobody for a token, and where the kernel has no such fence systemd only logs a warning: then the
# server must not start. In the unit's own control group, because there the fence is; on a network of its own, because
# at boot the machine may have no address yet.
set -euo pipefail

ADDRESS=192.0.2.1 # RFC 5737: nobody's

if [ "${1:-}" != --inside ]; then exec unshare --net "$0" --inside; fi

ip address add "$ADDRESS/32" dev lo
ip link set lo up
if (echo >"/dev/udp/$ADDRESS/9") 2>/dev/null; then
  echo "This kernel does not keep others away from S2's own server (IPAddressDeny= is without effect): it is not started. Set STREAMS=local, or let a firewall close its port and give s2-lite.service a drop-in with an empty ExecStartPre=." >&2
  exit 1
fi
