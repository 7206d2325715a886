set -x
make run; echo "make run: $?"
.venv/bin/firebox run examples/hello.py
(.venv/bin/firebox serve & echo $! > /tmp/p; wait) &
sleep 6
command -v curl || echo NO CURL
python3 - <<'P'
import urllib.request as r
q=r.Request("http://127.0.0.1:2000/api/v2/execute",b'{"language": "python", "version": "*", "files": [{"content": "print(6 * 7)"}]}',{"content-type":"application/json"})
print(r.urlopen(q).read())
q=r.Request("http://127.0.0.1:2000/api/v1/runs",b'{"language": "kotlin", "files": [{"content": "print(6 * 7)"}]}',{"content-type":"application/json"})
try: print(r.urlopen(q).read())
except Exception as e: print(e.read())
P
PATH=$PWD/.venv/bin:$PATH
echo 'print("hello")' > hello.py && firebox run hello.py
firebox run a.lua
echo 'print("hello")' > hello.lua; firebox run hello.lua; echo $?
firebox packages install --build lua; echo "install: $?"
firebox doctor; echo "doctor $?"
firebox runtimes
kill $(cat /tmp/p)
wait
