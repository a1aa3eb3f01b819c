// Runs an ONNX model with onnxruntime-node, for onnx_test.go. It is given the
// directory with node_modules, the model, and the number of threads, and reads lines of JSON:
//   {"inputs": {name: {"type": …, "dims": […], "file": …}}, "output": FILE}  runs once and writes all outputs, one after another
//   {"iterations": N}                                                       repeats that and answers how long each took
// and answers each with a line.
const fs = require('fs');
const path = require('path');
const readline = require('readline');

async function main() {
  const [dir, model, threads] = process.argv.slice(2);
  const ort = require(path.join(dir, 'node_modules', 'onnxruntime-node'));
  const session = await ort.InferenceSession.create(model, {
    executionProviders: ['cpu'], graphOptimizationLevel: 'all', intraOpNumThreads: Number(threads), interOpNumThreads: 1,
  });
  let feeds = {};
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const ask = JSON.parse(line);
    if (ask.inputs) {
      feeds = {};
      for (const [name, t] of Object.entries(ask.inputs)) {
        const bytes = fs.readFileSync(t.file);
        const raw = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length);
        feeds[name] = new ort.Tensor(t.type, t.type === 'int64' ? new BigInt64Array(raw) : new Float32Array(raw), t.dims);
      }
      const results = await session.run(feeds);
      const parts = session.outputNames.map((n) => Buffer.from(results[n].data.buffer, results[n].data.byteOffset, results[n].data.byteLength));
      fs.writeFileSync(ask.output, Buffer.concat(parts));
      console.log(JSON.stringify({ version: ort.env.versions.node || ort.env.versions.common }));
      continue;
    }
    const cpu = [];
    for (let i = 0; i < ask.iterations; i++) {
      const before = process.cpuUsage();
      await session.run(feeds);
      const took = process.cpuUsage(before);
      cpu.push((took.user + took.system) / 1000);
    }
    console.log(JSON.stringify({ cpu_ms: cpu }));
  }
}

main().catch((err) => { console.error(err); process.exit(1); });
