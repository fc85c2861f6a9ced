#!/usr/bin/env bash
# Runs a command as two ranks of Open MPI on two "hosts" of this machine: network namespaces with an address and a
# host name each, joined by a bridge, whose links are shaped to RATE (as tc writes it, such as 200mbit).
#
#     two_hosts.sh RATE COMMAND...
#
# Ends with 77 and the reason where this is not permitted (it takes root and iproute2).
set -euo pipefail
rate=$1
shift

skip() {
  echo "skipped: $1"
  exit 77
}
for tool in ip tc unshare mpirun; do
  command -v "$tool" >/dev/null || skip "there is no $tool"
done
[ "$(id -u)" -eq 0 ] || skip "network namespaces take root"

tag=s$(($$ % 100000))
subnet=10.213.$(($$ % 250))
bridge=${tag}br
folder=$(mktemp -d)
clean_up() {
  for host in "${tag}a" "${tag}b"; do
    ip netns del "$host" 2>/dev/null || true
    ip link del "${host}0" 2>/dev/null || true
  done
  ip link del "$bridge" 2>/dev/null || true
  rm -rf "$folder"
}
trap clean_up EXIT

ip link add "$bridge" type bridge 2>/dev/null || skip "network interfaces cannot be made here"
ip addr add "$subnet.1/24" dev "$bridge"
ip link set "$bridge" up
address=2
for host in "${tag}a" "${tag}b"; do
  ip netns add "$host" 2>/dev/null || skip "network namespaces cannot be made here"
  ip link add "${host}0" type veth peer name eth0 netns "$host" 2>/dev/null || skip "there are no veth links here"
  ip link set "${host}0" master "$bridge" up
  ip -n "$host" addr add "$subnet.$address/24" dev eth0
  ip -n "$host" link set eth0 up
  ip -n "$host" link set lo up
  ip netns exec "$host" tc qdisc add dev eth0 root tbf rate "$rate" burst 64kb latency 100ms 2>/dev/null ||
    skip "links cannot be shaped here"
  address=$((address + 1))
done

# What mpirun takes for ssh: AGENT HOST COMMAND...
cat >"$folder/agent" <<'AGENT'
#!/bin/sh
host=$1
shift
exec ip netns exec "$host" unshare --uts sh -c 'hostname "$1"; shift; exec sh -c "$*"' sh "$host" "$@"
AGENT
chmod +x "$folder/agent"

mpirun --allow-run-as-root --oversubscribe -n 2 -H "${tag}a,${tag}b" \
  --mca plm_rsh_agent "$folder/agent" --mca oob_tcp_if_include "$subnet.0/24" \
  --mca pml ob1 --mca btl tcp,self --mca btl_tcp_if_include "$subnet.0/24" "$@"
