// A client for the Realm WebSocket, written from the interface that its README describes
// and the frames that the published one exchanges: that package is on no registry.
import { EventEmitter } from "node:events";
import { randomUUID } from "node:crypto";

const AUTH_TIMEOUT_MS = 5000;

export const realmClient = (WebSocket) => class RealmWebSocketClient {
  #options;
  #socket = null;
  #ready = false;
  #stopped = false;
  #again = null;
  #waiting = new Map();
  #events = new EventEmitter();

  constructor(options) {
    if (!options.model) throw new Error("expected a model");
    this.#options = {
      url: "ws://localhost:8080",
      reconnect: true,
      reconnectInterval: 5000,
      timeout: 30000,
      ...options,
      tenantId: options.tenantId ?? randomUUID(),
    };
    // An "error" without a listener must not end the process.
    this.#events.on("error", () => {});
  }

  getTenantId() { return this.#options.tenantId; }
  isConnected() { return this.#ready && this.#socket?.readyState === WebSocket.OPEN; }
  on(event, listener) { this.#events.on(event, listener); }
  off(event, listener) { this.#events.off(event, listener); }

  async connect() {
    if (this.isConnected()) return;
    this.#stopped = false;
    const socket = new WebSocket(this.#options.url);
    this.#socket = socket;
    socket.on("message", (data) => this.#hear(JSON.parse(data.toString())));
    socket.on("close", () => this.#closed());
    socket.on("error", (error) => this.#events.emit("error", error));
    await new Promise((resolve, reject) => {
      socket.once("open", resolve);
      socket.once("error", reject);
    });
    if (this.#options.apiKey) await this.#authenticate(this.#options.apiKey);
    this.#ready = true;
    this.#events.emit("connected");
  }

  async generate({ prompt, max_tokens = 100, temperature = 0.7, stream = false, ...more }) {
    const params = { prompt, model: this.#options.model, max_tokens, temperature, stream, ...more };
    return (await this.call("generate", params)).data;
  }

  async *generateStream(options) {
    const tokens = [];
    let wake = () => {};
    let ended = false;
    let failure = null;
    const heard = (data) => {
      if (data.token) tokens.push(data.token);
      ended ||= data.is_final;
      wake();
    };
    const { max_tokens = 100, temperature = 0.7 } = options;
    const params = { ...options, model: this.#options.model, max_tokens, temperature, stream: true };
    const done = this.call("generate", params, heard).catch((error) => { failure = error; wake(); });
    // Only the frame that says so ends a stream, as in the published client.
    while (tokens.length || !(ended || failure)) {
      if (tokens.length) yield tokens.shift();
      else await new Promise((resolve) => { wake = resolve; });
    }
    await done;
    if (failure) throw failure;
  }

  async executePipeline(pipeline, input) {
    return (await this.call("pipeline", { pipeline, input })).data;
  }

  async health() { return (await this.call("health", {})).data; }
  async metadata() { return (await this.call("metadata", {})).data; }

  disconnect() {
    this.#stopped = true;
    clearTimeout(this.#again);
    this.#again = null;
    this.#socket?.close();
  }

  call(name, params, heard) {
    if (!this.isConnected()) return Promise.reject(new Error("not connected"));
    const id = randomUUID();
    return new Promise((resolve, reject) => {
      const waiting = { resolve, reject, heard, timer: null };
      this.#waiting.set(id, waiting);
      this.#rearm(id, waiting);
      this.#socket.send(JSON.stringify(
        { id, function: name, params, tenant_id: this.#options.tenantId }));
    });
  }

  #rearm(id, waiting) {
    clearTimeout(waiting.timer);
    waiting.timer = setTimeout(() => {
      this.#waiting.delete(id);
      waiting.reject(new Error("the call timed out"));
    }, this.#options.timeout);
  }

  #authenticate(api_key) {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error("no answer to auth")), AUTH_TIMEOUT_MS);
      this.#events.once("auth", (message) => {
        clearTimeout(timer);
        if (message.type === "auth_success") resolve();
        else reject(Object.assign(new Error(message.error.message), { code: message.error.code }));
      });
      this.#socket.send(JSON.stringify({ type: "auth", api_key }));
    });
  }

  #hear(message) {
    if (message.type === "auth_success" || message.type === "auth_failed") {
      this.#events.emit("auth", message);
      return;
    }
    const waiting = this.#waiting.get(message.id);
    if (!waiting) return;
    this.#rearm(message.id, waiting);
    if (message.status === "streaming") {
      waiting.heard?.(message.data);
      return;
    }
    clearTimeout(waiting.timer);
    this.#waiting.delete(message.id);
    const { error } = message;
    if (message.status === "complete") waiting.resolve(message);
    else if (message.status === "cancelled") waiting.reject(new Error("cancelled"));
    else {
      const fields = { code: error.code, retryAfter: error.retry_after };
      waiting.reject(Object.assign(new Error(error.message), fields));
    }
  }

  #closed() {
    this.#ready = false;
    for (const { reject, timer } of this.#waiting.values()) {
      clearTimeout(timer);
      reject(new Error("the connection closed"));
    }
    this.#waiting.clear();
    this.#events.emit("disconnected");
    if (this.#options.reconnect && !this.#stopped && !this.#again) {
      this.#again = setTimeout(() => {
        this.#again = null;
        this.connect().catch(() => {});
      }, this.#options.reconnectInterval);
    }
  }
};
