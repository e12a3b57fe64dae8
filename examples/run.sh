#!/bin/sh
# From a file to an endpoint that answers, by the command line alone: examples/run.sh NAME JOB.yaml [CONNECTION.yaml]
# NAME is one of prepare.py. A service must be up (`make serve`), and what the connection names (`make sandbox`).
# PYTHON and REPROG say how to start the two (default: .venv/bin/python, .venv/bin/reprog).
set -eu
name=$1 job=$2 connection=${3:-examples/connection.yaml}
python=${PYTHON:-.venv/bin/python} reprog=${REPROG:-.venv/bin/reprog}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
member() { "$python" -c "import json, sys; print(json.load(sys.stdin)$1)"; }

case $name in abide) file=$name.npz ;; dna | messidor) file=$name.csv ;; *) file=$name.zip ;; esac
"$python" examples/prepare.py "$name" "$folder/$file"
CONNECTION_ID=$($reprog connections create -f "$connection" --json | member '["id"]')
DATASET_ID=$($reprog datasets upload "$folder/$file" --json | member '["id"]')
export CONNECTION_ID DATASET_ID
$reprog jobs quote -f "$job"
$reprog jobs create -f "$job" --watch | tee "$folder/job.jsonl" | tail -n 1
endpoint=$(sed -n 's/^publish: {name: \(.*\)}$/\1/p' "$job")

# One test example back in, as it was sent: a row, series or sequence as JSON, a picture as a file.
$reprog datasets items "$DATASET_ID" --split test --limit 1 --json > "$folder/items.json"
echo "The label is $(member '["data"][0]["label"]' < "$folder/items.json")."
if grep -q '"input"' "$folder/items.json"; then
    "$python" -c "import json, sys; print(json.dumps({'inputs': [json.load(sys.stdin)['data'][0]['input']]}))" \
        < "$folder/items.json" > "$folder/body.json"
    cut -c 1-120 "$folder/body.json"
    $reprog endpoints predict "$endpoint" -f "$folder/body.json"
else
    $reprog datasets image "$DATASET_ID" "$(member '["data"][0]["n"]' < "$folder/items.json")" -o "$folder/image.png"
    $reprog endpoints predict "$endpoint" "$folder/image.png"
fi
