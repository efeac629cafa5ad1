// LayerScale's TypeScript client, which is on no registry: written from the two documents
// that describe it. Both spellings: client.sessions.create(...), as in the readme of
// @layerscale/layerscale 0.3.0, and client.createSession(...), as in the client's page.

import { EventEmitter } from "node:events";
import WebSocket from "ws";

export type StreamType = "ohlcv" | "iot" | "spatial" | "event" | "vitals";

export interface CreateSession {
  type: StreamType;
  prompt?: string;
  context?: number;
  window_size?: number;
  flash?: { query: string; max_tokens?: number }[];
  markPrefix?: boolean;
}

export interface Created {
  session_id: string;
  type: StreamType;
  n_tokens: number;
  context: number;
  window_size: number;
  flash_queries: number;
  pos_max: number;
}

export interface ToolCall {
  id: string;
  type: "function";
  function: { name: string; arguments: string };
}

export interface Message {
  role: "system" | "user" | "assistant" | "tool";
  content: string | null;
  tool_calls?: ToolCall[];
  tool_call_id?: string;
}

export interface Generate {
  prompt?: string;
  messages?: Message[];
  tools?: unknown[];
  tool_choice?: unknown;
  max_tokens?: number;
  fast_answer?: boolean;
  clear_after?: number;
  stop?: string[];
}

export interface Generated {
  text: string;
  n_tokens: number;
  total_tokens: number;
  pos_max: number;
  finish_reason?: string;
  tool_calls?: ToolCall[];
  flash?: boolean;
  flash_id?: number;
  data_version?: number;
  confidence?: number;
}

export interface GenerateChunk {
  token?: string;
  pos?: number;
  done?: boolean;
  text?: string;
  n_tokens?: number;
  finish_reason?: string;
}

export interface Pushed {
  pushed: number;
  dropped: number;
  queue_size: number;
  queue_capacity: number;
  total_enqueued: number;
  total_dropped: number;
}

export interface StreamStatus {
  type: StreamType;
  streaming: { running: boolean; error: boolean; queue_size: number; queue_capacity: number };
  statistics: { total_enqueued: number; items_processed: number; batches_processed: number };
  data: { data_count: number; total_data_tokens: number; pos_next: number };
}

export interface SessionState {
  session_id: string;
  n_tokens: number;
  context: number;
  prefix_end: number;
  data_count: number;
  context_text: string;
}

export type SessionEvent =
  | { type: "connected"; session_id: string; data_version: number; flash_queries: number }
  | {
      type: "flash_ready";
      id: number;
      query: string;
      value: string;
      data_version: number;
      confidence: number;
      evaluated_at: number;
    }
  | { type: "data_updated"; data_version: number; data_count: number; pos_next: number };

export interface Options {
  apiKey?: string;
  timeoutMs?: number;
}

export interface CallOptions {
  signal?: AbortSignal;
}

type Json = Record<string, any>;

export class LayerScaleError extends Error {
  constructor(
    readonly status: number,
    readonly body: { error: { message: string; type: string; code: string } },
  ) {
    super(body.error.message);
  }
}

async function* sse(body: ReadableStream<Uint8Array>): AsyncGenerator<{ event: string; data: string }> {
  const decoder = new TextDecoder();
  let buffer = "";
  for await (const chunk of body as unknown as AsyncIterable<Uint8Array>) {
    buffer += decoder.decode(chunk, { stream: true });
    let end: number;
    while ((end = buffer.indexOf("\n\n")) >= 0) {
      const lines = buffer.slice(0, end).split("\n");
      buffer = buffer.slice(end + 2);
      const event = lines.find((line) => line.startsWith("event: "))?.slice(7) ?? "";
      const data = lines.filter((line) => line.startsWith("data: ")).map((line) => line.slice(6));
      if (data.length > 0) yield { event, data: data.join("\n") };
    }
  }
}

/** Data push and events on one connection. It does not reconnect. */
export class SessionSocket extends EventEmitter {
  private readonly socket: WebSocket;

  constructor(url: string, headers: Record<string, string>) {
    super();
    this.socket = new WebSocket(url, { headers });
    this.socket.on("open", () => this.emit("open"));
    this.socket.on("close", (code) => this.emit("close", code));
    this.socket.on("error", (error) => this.emit("error", error));
    this.socket.on("message", (raw) => {
      const frame = JSON.parse(raw.toString());
      this.emit(frame.type, frame.data);
    });
  }

  push(data: unknown[]): void {
    this.socket.send(JSON.stringify({ type: "push", data }));
  }

  ping(): void {
    this.socket.send(JSON.stringify({ type: "ping" }));
  }

  close(): void {
    this.socket.close();
  }
}

class Sessions {
  constructor(private readonly client: LayerScale) {}

  async create(params: CreateSession, options?: CallOptions): Promise<Created> {
    const { markPrefix, ...body } = params;
    const session = await this.client.call("POST", "/v1/sessions/init", body, options);
    if (markPrefix) await this.markPrefix(session.session_id);
    return session as Created;
  }

  list(options?: CallOptions): Promise<{ sessions: Json[]; count: number; max_sessions: number }> {
    return this.client.call("GET", "/v1/sessions", undefined, options) as any;
  }

  get(id: string, options?: CallOptions): Promise<SessionState> {
    return this.client.call("GET", `/v1/sessions/${id}/state`, undefined, options) as any;
  }

  async delete(id: string, options?: CallOptions): Promise<void> {
    await this.client.call("DELETE", `/v1/sessions/${id}`, undefined, options);
  }

  append(id: string, text: string): Promise<{ n_tokens_added: number; total_tokens: number }> {
    return this.client.call("POST", `/v1/sessions/${id}/append`, { text }) as any;
  }

  query(id: string, params: Generate, options?: CallOptions): Promise<Generated> {
    const body = { ...params, stream: false };
    return this.client.call("POST", `/v1/sessions/${id}/generate`, body, options) as any;
  }

  async *queryStream(id: string, params: Generate, options?: CallOptions): AsyncGenerator<GenerateChunk> {
    const body = { ...params, stream: true };
    for await (const { data } of this.client.stream("POST", `/v1/sessions/${id}/generate`, body, options)) {
      yield JSON.parse(data);
    }
  }

  markPrefix(id: string): Promise<{ prefix_end: number; message: string }> {
    return this.client.call("POST", `/v1/sessions/${id}/mark_prefix`, {}) as any;
  }

  async push(id: string, data: unknown[], options: { wait?: boolean } & CallOptions = {}): Promise<Pushed> {
    const path = `/v1/sessions/${id}/stream/push`;
    const ack = (await this.client.call("POST", path, { data }, options)) as Pushed;
    const until = Date.now() + 30_000;
    while (options.wait) {
      const { streaming, statistics } = await this.streamStatus(id);
      if (streaming.queue_size === 0 && statistics.items_processed >= ack.total_enqueued) break;
      if (Date.now() > until) throw new Error("push with wait timed out");
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    return ack;
  }

  streamStatus(id: string): Promise<StreamStatus> {
    return this.client.call("GET", `/v1/sessions/${id}/stream/status`) as any;
  }

  stats(id: string): Promise<Json> {
    return this.client.call("GET", `/v1/sessions/${id}/stats`);
  }

  flash(id: string, query: string, maxTokens?: number): Promise<Json> {
    const body = maxTokens === undefined ? { query } : { query, max_tokens: maxTokens };
    return this.client.call("POST", `/v1/sessions/${id}/flash`, body);
  }

  listFlash(id: string): Promise<{ flash_queries: Json[]; count: number }> {
    return this.client.call("GET", `/v1/sessions/${id}/flash`) as any;
  }

  unflash(id: string, queryId: number): Promise<{ success: boolean; remaining: number }> {
    return this.client.call("DELETE", `/v1/sessions/${id}/flash/${queryId}`) as any;
  }

  async *events(id: string, options?: CallOptions): AsyncGenerator<SessionEvent> {
    for await (const { event, data } of this.client.stream("GET", `/v1/sessions/${id}/events`, undefined, options)) {
      yield { type: event, ...JSON.parse(data) } as SessionEvent;
    }
  }

  stream(id: string): SessionSocket {
    const url = this.client.baseUrl.replace(/^http/, "ws");
    return new SessionSocket(`${url}/v1/sessions/${id}/ws`, this.client.headers);
  }
}

export class LayerScale {
  readonly sessions = new Sessions(this);
  readonly baseUrl: string;
  readonly headers: Record<string, string>;
  private readonly timeoutMs: number;

  constructor(baseUrl: string, options: Options = {}) {
    const key = options.apiKey ?? process.env.LAYERSCALE_LICENSE_KEY;
    this.baseUrl = baseUrl.replace(/\/+$/, "");
    this.headers = { "Content-Type": "application/json" };
    if (key) this.headers.Authorization = `Bearer ${key}`;
    this.timeoutMs = options.timeoutMs ?? 600_000;
  }

  // -- the flat spelling ----------------------------------------------------------------

  createSession = (params: CreateSession) => this.sessions.create(params);
  deleteSession = (id: string) => this.sessions.delete(id);
  push = (id: string, data: unknown[], options?: { wait?: boolean }) => this.sessions.push(id, data, options);
  generate = (id: string, params: Generate) => this.sessions.query(id, params);
  generateStream = (id: string, params: Generate) => this.sessions.queryStream(id, params);
  events = (id: string, options?: CallOptions) => this.sessions.events(id, options);
  streamStatus = (id: string) => this.sessions.streamStatus(id);
  stats = (id: string) => this.sessions.stats(id);

  /** The session's WebSocket. */
  stream(id: string): SessionSocket;
  /** A streamed request, as the methods of both spellings make it. */
  stream(
    method: string,
    path: string,
    body?: unknown,
    options?: CallOptions,
  ): AsyncGenerator<{ event: string; data: string }>;
  stream(first: string, path?: string, body?: unknown, options?: CallOptions) {
    return path === undefined ? this.sessions.stream(first) : this.frames(first, path, body, options);
  }

  // -- the server, chats and messages ---------------------------------------------------

  async health(): Promise<{ ok: boolean; status: number }> {
    const response = await fetch(`${this.baseUrl}/v1/health`, { headers: this.headers });
    return { ok: response.ok, status: response.status };
  }

  models(): Promise<{ object: string; data: { id: string }[] }> {
    return this.call("GET", "/v1/models") as any;
  }

  chat(params: Json, options?: CallOptions): Promise<Json> {
    return this.call("POST", "/v1/chat/completions", { ...params, stream: false }, options);
  }

  async *chatStream(params: Json): AsyncGenerator<Json> {
    const body = { ...params, stream: true };
    for await (const { data } of this.frames("POST", "/v1/chat/completions", body)) {
      if (data === "[DONE]") return;
      yield JSON.parse(data);
    }
  }

  complete(params: Json): Promise<Json> {
    return this.call("POST", "/v1/completions", { ...params, stream: false });
  }

  message(params: Json): Promise<Json> {
    return this.call("POST", "/v1/messages", { ...params, stream: false });
  }

  async *messageStream(params: Json): AsyncGenerator<Json> {
    for await (const { data } of this.frames("POST", "/v1/messages", { ...params, stream: true })) {
      yield JSON.parse(data);
    }
  }

  // -- requests -------------------------------------------------------------------------

  async call(method: string, path: string, body?: unknown, options?: CallOptions): Promise<Json> {
    const timeout = this.timeoutMs ? [AbortSignal.timeout(this.timeoutMs)] : [];
    const signals = [...timeout, ...(options?.signal ? [options.signal] : [])];
    const response = await this.request(method, path, body, AbortSignal.any(signals));
    return (await response.json()) as Json;
  }

  private async *frames(method: string, path: string, body?: unknown, options?: CallOptions) {
    const response = await this.request(method, path, body, options?.signal);
    yield* sse(response.body!);
  }

  private async request(method: string, path: string, body: unknown, signal?: AbortSignal): Promise<Response> {
    const response = await fetch(`${this.baseUrl}${path}`, {
      method,
      headers: this.headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal,
    });
    if (!response.ok) throw new LayerScaleError(response.status, (await response.json()) as any);
    return response;
  }
}
