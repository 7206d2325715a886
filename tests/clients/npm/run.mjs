// Runs a program with piston-client as its documentation says. Arguments: the server's URL, what to do, in JSON.
import piston from "piston-client";

const [server, wanted] = process.argv.slice(2);
const { language, code, options } = JSON.parse(wanted);
const client = piston({ server });
const runtimes = await client.runtimes();
const result = await client.execute(language, code, options);
console.log(JSON.stringify({ languages: runtimes.map((runtime) => runtime.language), result }));
