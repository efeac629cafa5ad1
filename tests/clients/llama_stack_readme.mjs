// The examples of the README of llama-stack-client 0.0.35, one a run; prints one JSON line.
// LLAMA_STACK_CLIENT_BASE_URL=URL node llama_stack_readme.mjs NODE_MODULES EXAMPLE
import http from "node:http";
import { createRequire } from "node:module";

const [, , modules, example] = process.argv;
const require = createRequire(`${modules}/`);
const name = `${modules}/llama-stack-client-0.0.35`;
if (example === "web shim") require(`${name}/shims/web`);
const LlamaStackClient = require(name).default;

const session = { agent_id: "agent_id", session_name: "session_name" };
const create = (client, options) => client.agents.sessions.create(session, options);
const raised = (promise) =>
  promise.then(
    () => { throw new Error("nothing was raised"); },
    (err) => ({
      api_error: err instanceof LlamaStackClient.APIError,
      class: err.constructor.name,
      status: err.status ?? null,
      message: err.message,
      type: err.headers?.["content-type"] ?? null,
    }),
  );

const examples = {
  usage: () => create(new LlamaStackClient()),
  "environment and base URL": () =>
    raised((async () => new LlamaStackClient({ environment: "sandbox" }))()),
  error: () => raised(create(new LlamaStackClient({ maxRetries: 0 }))),
  "retries of the client": () => create(new LlamaStackClient({ maxRetries: 1 })),
  "default retries": () => create(new LlamaStackClient()),
  "default retries are two": () => raised(create(new LlamaStackClient())),
  "no retries": () => raised(create(new LlamaStackClient({ maxRetries: 0 }))),
  "retries of a request": () => create(new LlamaStackClient({ maxRetries: 0 }), { maxRetries: 5 }),
  timeout: () => raised(create(new LlamaStackClient({ timeout: 200, maxRetries: 0 }))),
  "timeout of a request": () =>
    raised(create(new LlamaStackClient({ maxRetries: 0 }), { timeout: 200 })),
  "timeouts are retried": () => create(new LlamaStackClient({ timeout: 200 })),
  "raw response": async () => {
    const response = await create(new LlamaStackClient()).asResponse();
    const { status, statusText } = response;
    return { status, statusText, id: response.headers.get("Request-Id"), body: await response.json() };
  },
  "with response": async () => {
    const { data, response } = await create(new LlamaStackClient()).withResponse();
    return { session_id: data.session_id, id: response.headers.get("request-id") };
  },
  "undocumented endpoint": () => new LlamaStackClient().get("/v1/version"),
  "undocumented endpoint that is not there": () =>
    raised(
      new LlamaStackClient().post("/some/path", {
        body: { some_prop: "foo" },
        query: { some_query_arg: "bar" },
      }),
    ),
  "undocumented parameter": () =>
    new LlamaStackClient().agents.sessions.create({ ...session, baz: "undocumented option" }),
  "custom fetch": async () => {
    const seen = [];
    const client = new LlamaStackClient({
      fetch: async (url, init) => {
        const response = await fetch(url, init);
        seen.push({ path: new URL(url).pathname, method: init.method, status: response.status });
        return response;
      },
    });
    return { ...(await create(client)), seen };
  },
  "web shim": () => create(new LlamaStackClient()),
  agent: () =>
    create(new LlamaStackClient(), { httpAgent: new http.Agent({ keepAlive: false }) }),
};

console.log(JSON.stringify(await examples[example]()));
