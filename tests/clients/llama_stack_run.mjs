// What the runs of the Llama Stack clients share: each prints one JSON line a method.
import { createRequire } from "node:module";

const [, , modules, url, model, embedder] = process.argv;
const require = createRequire(`${modules}/`);

export const Client = (version) => require(`${modules}/llama-stack-client-${version}`).default;
export const shim = (version) => require(`${modules}/llama-stack-client-${version}/shims/web`);
export { embedder, model, url };

const plain = (value) => (value === undefined ? null : value);

// Runs a method and prints what it gave, or how it was refused; gives it back too.
export async function run(method, ask) {
  try {
    const value = plain(await ask());
    console.log(JSON.stringify({ method, value }));
    return value;
  } catch (error) {
    const { status, message } = error;
    console.log(JSON.stringify({ method, error: { class: error.constructor.name, status, message } }));
    return null;
  }
}

export async function all(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
}

// Pushes a reading to a session, as a LayerScale client does, and waits until it is there.
export async function push(session, reading = { sid: "room4", val: 31.5 }) {
  const base = `${url}/v1/sessions/${session}/stream`;
  const headers = { "content-type": "application/json" };
  const body = JSON.stringify({ data: [reading] });
  await fetch(`${base}/push`, { method: "POST", headers, body });
  for (;;) {
    const status = await (await fetch(`${base}/status`)).json();
    if (!status.streaming.queue_size) return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
