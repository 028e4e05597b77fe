// Times the model with one number of threads. A worker of its own each time: the runtime cannot change it later, and one
// that hangs can be ended.

import * as ort from "./ort.wasm.min.mjs";

const REPORT_MS = 1000;
const MIN_TICKS = 10; // of the clock, in a sample: some browsers make it tick ten times a second

let goOn;

onmessage = ({ data }) => {
  if (data === "go on") goOn();
  else measure(data).catch((error) => postMessage({ doing: "failed", share: 1, error: String(error?.message ?? error) }));
};

async function measure({ task, files, threads }) {
  ort.env.wasm.numThreads = threads;
  ort.env.wasm.wasmBinary = files["ort-wasm-simd-threaded.wasm"].buffer;
  ort.env.wasm.wasmPaths = { mjs: new URL("ort-wasm-simd-threaded.mjs", import.meta.url).href };
  tell("starting", 0, { runtime_version: ort.env.versions.web });

  // From file to ready, as elsewhere; here that includes the start of the runtime itself.
  const loadStart = performance.now();
  const session = await ort.InferenceSession.create(files["model.onnx"], { executionProviders: ["wasm"] });
  const attempt = { load_ms: performance.now() - loadStart };
  const images = new ort.Tensor("float32", new Float32Array(files["input.bin"].buffer), task.input_shape);
  const feeds = { [session.inputNames[0]]: images };
  const run = async () => (await session.run(feeds))[session.outputNames[0]];
  const time = async (runs) => {
    const start = performance.now();
    for (let i = 0; i < runs; i++) await run();
    return (performance.now() - start) / runs;
  };

  let reported = performance.now();
  const progress = async (doing, share) => {
    if (performance.now() - reported < REPORT_MS) return;
    // Stands still until the page has sent it, so that sending disturbs no sample.
    const sent = new Promise((resolve) => (goOn = resolve));
    tell(doing, share, { attempt, waits: true });
    await sent;
    reported = performance.now();
  };

  attempt.first_run_ms = await time(1);
  tell("warming up", 0);
  const warmUpEnd = performance.now() + 1000 * task.max_seconds;
  for (let i = 0; i < task.warmup && performance.now() < warmUpEnd; i++) {
    await run();
    await progress("warming up", 0);
  }
  const output = await run();
  if (!output.data.every(Number.isFinite)) throw new Error("the output is not finite");
  attempt.output_shape = [...output.dims];
  attempt.output = Array.from(output.data.subarray(0, task.max_output_values));

  const shortest = Math.max(task.sample_ms, MIN_TICKS * tick());
  let runs = 1;
  while ((await time(runs)) * runs < shortest) runs *= 2;

  attempt.samples_ms = [];
  const start = performance.now();
  for (let share = 0; share < 1; ) {
    attempt.samples_ms.push(await time(runs));
    const seconds = (performance.now() - start) / 1000;
    const long = task.min_seconds > 0 ? seconds / task.min_seconds : 1;
    share = Math.max(Math.min(attempt.samples_ms.length / task.min_samples, long), seconds / task.max_seconds);
    await progress("measuring", share);
  }
  tell("measured", 1, { attempt, done: true });
}

// The step of the clock, in ms.
function tick() {
  const start = performance.now();
  for (;;) {
    const now = performance.now();
    if (now > start) return now - start;
  }
}

function tell(doing, share, more = {}) {
  postMessage({ doing, share, ...more });
}
