// Times the model with each number of threads, one worker after the other, and reports to the computer after each step.

const SEND_TRIES = 5;
const SEND_SECONDS = 10;

const task = await (await fetch("task.json")).json();
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
  for (const name of ["ort-wasm-simd-threaded.wasm", "model.onnx", "input.bin"]) files[name] = await load(name);
  const queue = [...task.threads];
  while (queue.length > 0) {
    const attempt = { threads: queue.shift(), error: "", samples_ms: [] };
    report.attempts.push(attempt);
    attempt.error = missing(attempt.threads) ?? (await run(attempt, files));
    show(attempt);
    const tried = (threads) => queue.includes(threads) || report.attempts.some((one) => one.threads === threads);
    // Threads fail or hang in some browsers: one thread works in all.
    if (attempt.error && !tried(1)) queue.unshift(1);
  }
  report.finished = true;
  status("Sending the result", 1);
  const arrived = await send(SEND_TRIES);
  const timed = report.attempts.some((attempt) => attempt.samples_ms.length > 0);
  if (!arrived) status("The computer does not answer. Reload to try again.", 1, true);
  else status(timed ? "Done. The result was sent." : "This browser could not run the model.", 1, !timed);
  element("note").textContent = arrived ? "You can close this page." : "";
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
    worker.onerror = (event) => end(event.message || "the worker cannot start");
    worker.onmessage = async ({ data }) => {
      watch();
      if (data.runtime_version) report.runtime_version = data.runtime_version;
      Object.assign(attempt, data.attempt);
      status(`${label}: ${data.doing}`, data.share);
      if (data.error !== undefined) return end(data.error);
      if (data.done) return end("");
      if (data.waits) {
        // The worker stands still meanwhile, so that sending disturbs no sample.
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
  const response = await fetch(name);
  if (!response.ok) throw new Error(`${name} did not arrive`);
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

// Send all that is known so far; resolves to whether it arrived.
async function send(tries) {
  for (let left = tries; left > 0; left--) {
    try {
      const response = await fetch("report", {
        method: "POST",
        body: JSON.stringify(report),
        signal: AbortSignal.timeout?.(1000 * SEND_SECONDS),
      });
      return response.ok;
    } catch {
      if (left > 1) await new Promise((resolve) => setTimeout(resolve, 1000));
    }
  }
  return false;
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
  card.querySelector("strong").textContent = samples.length ? percentile(samples, 50).toFixed(2) : "";
  card.querySelector(".details").textContent = attempt.error
    ? `Not timed: ${attempt.error}.`
    : `Median of ${samples.length}; nine in ten within ${percentile(samples, 90).toFixed(2)} ms.`;
  element("results").append(card);
}

// Of sorted values, with linear interpolation.
function percentile(sorted, percent) {
  const position = ((sorted.length - 1) * percent) / 100;
  const below = Math.floor(position);
  const above = Math.min(below + 1, sorted.length - 1);
  return sorted[below] + (position - below) * (sorted[above] - sorted[below]);
}
