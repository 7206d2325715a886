// Does with socket.io-client what a program of grounds-exec does. Arguments: the server's URL, what to do, in JSON:
// {"options": of the client, "steps": [{"emit": a request, "until": stream, "chunk": text that the last one holds}]}.
// Prints every reply as JSON; {"refused": words} when the connection is refused.
import { io } from "socket.io-client";

const [server, wanted] = process.argv.slice(2);
const { options, steps } = JSON.parse(wanted);
const client = io(server, { reconnection: false, ...options });
const replies = [];
let step = 0;

const advance = () => {
  if (step === steps.length) {
    const transport = client.io.engine.transport.name;
    client.disconnect();
    console.log(JSON.stringify({ transport, replies }));
    return;
  }
  const request = steps[step].emit;
  if (request === "nothing") client.emit("run");
  else if (request.binary) client.emit("run", { language: "python3", code: Buffer.from(request.binary) });
  else client.emit("run", request);
};

client.on("connect", advance);
client.on("run", (reply) => {
  replies.push(reply);
  const { until, chunk } = steps[step];
  if (reply.stream === until && String(reply.chunk).includes(chunk ?? "")) {
    step += 1;
    advance();
  }
});
client.on("connect_error", (error) => console.log(JSON.stringify({ refused: error.message })));
