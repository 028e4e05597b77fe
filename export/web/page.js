// Times the model with each number of threads, one worker after the other, and reports to the computer after each step.

const TRIES = 5; // of what goes over the network: a phone changes its network, a connection drops
const SEND_SECONDS = 10;
const CANNOT_START = "the worker cannot start";

const task = await retrying(TRIES, async () => (await get("task.json")).json());
const report = {
  visit: Array.from(crypto.getRandomValues(new Uint32Array(4)), String).join("-"),
  hardware: await hardware(),
  cores: navigator.hardwareConcurrency || 1,
  attempts: [],
  finished: false,
};
const element = (id) => document.getElementById(id);

main().catch((error) => status(`Something went wrong: ${error.message}. Reload to try again.`, 1, true));

async function main() {
  element("model").textContent = task.model;
  element("facts").textContent =
    `${(task.bytes / 1e6).toFixed(2)} MB, input ${task.input_shape.join(" × ")}, ` +
    `${report.cores} core${report.cores > 1 ? "s" : ""}`;
  // Where it is refused, the person has been asked to keep the screen on.
  navigator.wakeLock?.request("screen").catch(() => {});
  await send(1);
  const files = {};
  for (const name of ["ort-wasm-simd-threaded.wasm", "model.onnx", "input.bin"]) {
    files[name] = await retrying(TRIES, () => load(name));
  }
  const queue = [...task.threads];
  while (queue.length > 0) {
    const attempt = { threads: queue.shift(), error: "", samples_ms: [] };
    report.attempts.push(attempt);
    attempt.error = missing(attempt.threads) ?? (await run(attempt, files));
    // Its scripts come over the network, too.
    if (attempt.error === CANNOT_START) attempt.error = await run(attempt, files);
    show(attempt);
    const tried = (threads) => queue.includes(threads) || report.attempts.some((one) => one.threads === threads);
    // Threads fail or hang in some browsers: one thread works in all.
    if (attempt.error && !tried(1)) queue.unshift(1);
  }
  report.finished = true;
  status("Sending the result", 1);
  const trouble = await send(TRIES);
  const timed = report.attempts.some((attempt) => attempt.samples_ms.length > 0);
  if (trouble) status(`${trouble}. Reload to try again.`, 1, true);
  else status(timed ? "Done. The result was sent." : "This browser could not run the model.", 1, !timed);
  element("note").textContent = trouble ? "" : "You can close this page.";
}

// Why this number of threads cannot be had; undefined if it can.
function missing(threads) {
  if (threads > 1 && !crossOriginIsolated) return "a page has threads over https or on localhost only";
  if (threads > report.cores) return `the browser offers ${report.cores} only`;
}

// Let a worker time the model; resolves to an error message, empty if all went well.
function run(attempt, files) {
  const worker = new Worker("worker.js", { type: "module" });
  const label = threadsOf(attempt);
  return new Promise((resolve) => {
    let watchdog;
    const watch = () => {
      clearTimeout(watchdog);
      watchdog = setTimeout(() => end(`no answer for ${task.hang_seconds} s`), 1000 * task.hang_seconds);
    };
    const end = (error) => {
      clearTimeout(watchdog);
      worker.terminate();
      resolve(error);
    };
    worker.onerror = (event) => end(event.message || CANNOT_START);
    worker.onmessage = async ({ data }) => {
      watch();
      if (data.runtime_version) report.runtime_version = data.runtime_version;
      Object.assign(attempt, data.attempt);
      status(`${label}: ${data.doing}`, data.share);
      if (data.error !== undefined) return end(data.error);
      if (data.done) return end("");
      if (data.waits) {
        await send(1);
        worker.postMessage("go on");
      }
    };
    status(`${label}: starting`, 0);
    watch();
    worker.postMessage({ task, files, threads: attempt.threads });
  });
}

// Fetch a file, showing how it goes; resolves to its bytes.
async function load(name) {
  const response = await get(name);
  const bytes = new Uint8Array(Number(response.headers.get("Content-Length")));
  let received = 0;
  for (const reader = response.body.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) return bytes;
    bytes.set(value, received);
    received += value.length;
    status(`Loading ${name}`, received / bytes.length);
  }
}

async function get(name) {
  const response = await fetch(name);
  if (!response.ok) throw new Error(`${name} did not arrive`);
  return response;
}

// Send all that is known so far; resolves to why it did not arrive, or to nothing.
async function send(tries) {
  const post = () => {
    const signal = AbortSignal.timeout?.(1000 * SEND_SECONDS);
    return fetch("report", { method: "POST", body: JSON.stringify(report), signal });
  };
  return retrying(tries, post).then(
    (response) => (response.ok ? "" : "The computer refused the result and says why"),
    () => "The computer does not answer",
  );
}

async function retrying(tries, action) {
  try {
    return await action();
  } catch (error) {
    if (tries === 1) throw error;
    await new Promise((resolve) => setTimeout(resolve, 1000));
    return retrying(tries - 1, action);
  }
}

// The device's model, where the browser tells it.
async function hardware() {
  try {
    return (await navigator.userAgentData.getHighEntropyValues(["model"])).model ?? "";
  } catch {
    return "";
  }
}

function threadsOf(attempt) {
  return `${attempt.threads} thread${attempt.threads > 1 ? "s" : ""}`;
}

function status(text, share, failed = false) {
  element("status").textContent = text;
  element("status").classList.toggle("failed", failed);
  element("progress").value = share;
}

function show(attempt) {
  const card = element("result").content.cloneNode(true).firstElementChild;
  const samples = [...attempt.samples_ms].sort((a, b) => a - b);
  card.querySelector("h2").textContent = threadsOf(attempt);
  card.classList.toggle("failed", attempt.error !== "");
  card.querySelector(".figure").hidden = samples.length === 0;
  card.querySelector("strong").textContent = samples.length ? rounded(percentile(samples, 50)) : "";
  card.querySelector(".details").textContent = attempt.error
    ? `${samples.length ? `Stopped after ${samples.length}` : "Not timed"}: ${attempt.error}.`
    : `Median of ${samples.length}; nine in ten within ${rounded(percentile(samples, 90))} ms.`;
  element("results").append(card);
}

// No more digits than fit a card on a narrow screen.
function rounded(milliseconds) {
  return milliseconds.toFixed(milliseconds < 100 ? 2 : 0);
}

// Of sorted values, with linear interpolation.
function percentile(sorted, percent) {
  const position = ((sorted.length - 1) * percent) / 100;
  const below = Math.floor(position);
  const above = Math.min(below + 1, sorted.length - 1);
  return sorted[below] + (position - below) * (sorted[above] - sorted[below]);
}
