// Does with socket.io-client what a program of grounds-exec does. Arguments: the client's version, the server's URL, and in JSON
// {"options": of the client, "steps": [{"emit": a request, "until": stream, "chunk": text that the last one holds}]}.
// A step {"reconnect": true} breaks the connection; the next one is taken on a new one. Prints the replies and the transport of
// each connection as JSON, or {"refused": words}.
const [version, server, wanted] = process.argv.slice(2);
const io = require(`socket.io-client-${version}`);
const { options, steps } = JSON.parse(wanted);
const client = io(server, { reconnectionDelay: 10, ...options });
const replies = [];
const transports = [];
let step = 0;

const finish = (result) => {
  client.close();
  console.log(JSON.stringify(result));
};

const advance = () => {
  if (step === steps.length) return finish({ transports, replies });
  const { emit, reconnect } = steps[step];
  if (reconnect) {
    step += 1;
    client.io.engine.close();
  } else if (emit === "nothing") client.emit("run");
  else if (emit.binary) client.emit("run", { language: "python3", code: Buffer.from(emit.binary) });
  else client.emit("run", emit);
};

const begin = () => {
  transports.push(client.io.engine.transport.name);
  advance();
};

client.on("connect", () => {
  const goal = options.transports[options.transports.length - 1];
  if (client.io.engine.transport.name === goal) begin();
  else client.io.engine.once("upgrade", begin);
});
client.on("run", (reply) => {
  replies.push(reply);
  const { until, chunk } = steps[step];
  if (reply.stream === until && String(reply.chunk).includes(chunk || "")) {
    step += 1;
    advance();
  }
});
client.on("connect_error", (error) => finish({ refused: error.message })); // versions 3 and 4
client.on("error", (error) => finish({ refused: error })); // versions 1 and 2
