rm -rf /opt/befunge93/.nyc_output /opt/befunge93/test
# The package is a library; this runs a file with it.
cat > /usr/local/bin/befunge93 <<'END'
#!/usr/bin/node
"use strict";
const fs = require("fs");
const Befunge93 = require("/opt/befunge93/lib/befunge93.js");

if (process.argv[2] === "--version") {
  console.log(require("/opt/befunge93/package.json").version);
  process.exit();
}

let input = null;
let written = "";

function flush() {
  // Half of a character above U+FFFF waits for the other half.
  const last = written.charCodeAt(written.length - 1);
  const kept = last >= 0xd800 && last < 0xdc00 ? 1 : 0;
  const bytes = Buffer.from(written.slice(0, written.length - kept));
  written = written.slice(written.length - kept);
  for (let done = 0; done < bytes.length; ) {
    try {
      done += fs.writeSync(1, bytes, done);
    } catch (error) {
      if (error.code !== "EAGAIN") throw error;
    }
  }
}

class Interpreter extends Befunge93 {
  _onOutput(value) {
    written += value;
    if (value === "\n" || written.length > 4096) flush();
  }

  rest() {
    flush();
    if (input === null) input = fs.readFileSync(0, "utf8");
    return input;
  }

  // Both give -1 at the end of the input.
  inAscii() {
    const text = this.rest();
    this.push(text ? text.charCodeAt(0) : -1);
    input = text.slice(1);
  }

  inInt() {
    const found = /-?\d+/.exec(this.rest());
    this.push(found ? parseInt(found[0], 10) : -1);
    input = found ? input.slice(found.index + found[0].length) : "";
  }
}

new Interpreter()
  .run(fs.readFileSync(process.argv[2], "utf8"))
  .then(flush)
  .catch((error) => {
    flush();
    console.error(`befunge93: ${error.message}`);
    process.exit(1);
  });
END
chmod 755 /usr/local/bin/befunge93
