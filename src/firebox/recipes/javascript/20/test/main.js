const zlib = require("node:zlib");
console.log(zlib.gunzipSync(zlib.gzipSync("OK")).toString());
