# What functions of "gretun up" belong into its code cache: two nodes meet here, in namespaces of their own.
# Arguments: the coordinator's program, the one that writes a cache, and where to.
set -eu
state=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null; wait; rm -rf "$state"' EXIT
ip link set lo up
ip link add near type veth peer name far
ip address add 192.0.2.1/24 dev near
ip link set near up
ip link set far up
up() {
  CODE_CACHE=$1 "$WRITER" up --coordinator http://127.0.0.1:8443 --state-dir "$state/$2" --port "$2" \
    --data-plane tun --port-mapping off 2>"$state/$2.log" &
}
says() {
  for _ in $(seq 200); do grep -q "$2" "$state/$1.log" && return; sleep 0.05; done
  return 1
}
WRITER=$2
"$1" --state "$state/coord.db" --listen 127.0.0.1:8443 --stun-listen 127.0.0.1:3478 2>"$state/coord.log" &
says coord "coordinator listening"
up "$state/cache" 7777
says 7777 "no peers yet"
up "$3" 7778
node=$!
says 7778 "tunnel up"
kill -INT "$node"
wait "$node"
