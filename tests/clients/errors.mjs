// How each JavaScript client raises an error of the bridge: one JSON line a client.
// node errors.mjs NODE_MODULES URL PATH
import { createRequire } from "node:module";

const [, , modules, url, path] = process.argv;
const require = createRequire(`${modules}/`);
const names = [
  "openai",
  "@anthropic-ai/sdk",
  "llama-stack-client-0.0.35",
  "llama-stack-client-0.3.0",
  "llama-stack-client-0.7.3",
];

for (const name of names) {
  const Client = require(`${modules}/${name}`).default;
  const client = new Client({ apiKey: "key", baseURL: url, maxRetries: 0 });
  const raised = await client.post(path, { body: {} }).then(
    () => { throw new Error(`${name} raised nothing`); },
    (error) => error,
  );
  const { status, message, type, code } = raised;
  const request_id = raised.requestID ?? raised.request_id;
  const line = { name, class: raised.constructor.name, status, message, type, code, request_id };
  console.log(JSON.stringify(line));
}
