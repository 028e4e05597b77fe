// Times the model with one number of threads. A worker of its own each time: the runtime cannot change it later, and one
// that hangs can be ended.

import * as ort from "./ort.wasm.min.mjs";

const REPORT_MS = 1000;

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
  const start = performance.now();
  const session = await ort.InferenceSession.create(files["model.onnx"], { executionProviders: ["wasm"] });
  const attempt = { load_ms: performance.now() - start };
  const images = new ort.Tensor("float32", new Float32Array(files["input.bin"].buffer), task.input_shape);
  const feeds = { [session.inputNames[0]]: images };
  const run = async () => (await session.run(feeds))[session.outputNames[0]];
  const time = async (runs) => {
    const start = performance.now();
    for (let i = 0; i < runs; i++) await run();
    return (performance.now() - start) / runs;
  };

  attempt.first_run_ms = await time(1);
  const warmUpEnd = performance.now() + 1000 * task.max_seconds;
  for (let i = 0; i < task.warmup && performance.now() < warmUpEnd; i++) {
    await run();
    tell("warming up", 0);
  }
  const output = await run();
  if (!output.data.every(Number.isFinite)) throw new Error("the output is not finite");
  attempt.output_shape = [...output.dims];
  attempt.output = Array.from(output.data.subarray(0, task.max_output_values));

  let runs = 1;
  while ((await time(runs)) * runs < task.sample_ms) runs *= 2;

  attempt.samples_ms = [];
  const samplingStart = performance.now();
  let reported = samplingStart;
  while (true) {
    attempt.samples_ms.push(await time(runs));
    const now = performance.now();
    const seconds = (now - samplingStart) / 1000;
    const enough = Math.min(attempt.samples_ms.length / task.min_samples, seconds / (task.min_seconds || 1e-9));
    const share = Math.max(enough, seconds / task.max_seconds);
    if (share >= 1) break;
    if (now - reported > REPORT_MS) {
      const answer = new Promise((resolve) => (goOn = resolve));
      tell("measuring", share, { attempt, waits: true });
      await answer;
      reported = performance.now();
    }
  }
  tell("measured", 1, { attempt, done: true });
}

function tell(doing, share, more = {}) {
  postMessage({ doing, share, ...more });
}
