rm -rf /opt/lolcode/examples /opt/lolcode/tests /opt/lolcode/icon.png
# The package's own program knows no input, and ends with status 0 when it cannot read a file.
cat > /usr/local/bin/lolcode <<'END'
#!/usr/bin/node
"use strict";
const fs = require("fs");
const vm = require("vm");

if (process.argv[2] === "--version") {
  console.log(require("/opt/lolcode/package.json").version);
  process.exit();
}

let lines = null;

// What its translations call.
const context = {
  console,
  prompt() {
    if (lines === null) lines = fs.readFileSync(0, "utf8").split("\n");
    return lines.length ? lines.shift() : "";
  },
  castBukkit: (value) => (typeof value === "string" ? value.split("") : [value]),
  _xor: (one, other) => Boolean((one || other) && !(one && other)),
  _char: (number) => String.fromCharCode(number),
  _ord: (text) => text.charCodeAt(0),
  _len: (thing) => (thing.length === undefined ? 0 : thing.length),
};

function failed(words) {
  console.error(`lolcode: ${words}`);
  process.exit(1);
}

require("/opt/lolcode/parser.js")(fs.readFileSync(process.argv[2], "utf8"), (error, warning, script) => {
  if (error) failed(error);
  if (warning) console.error(warning);
  try {
    vm.runInNewContext(script, context);
  } catch (error) {
    failed(error);
  }
});
END
chmod 755 /usr/local/bin/lolcode
