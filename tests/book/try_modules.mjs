// Runs the page's own worker without a browser: node try_modules.mjs FOLDER PAGE; masks and words of each scan of FOLDER go to FOLDER.
import { openAsBlob, readdirSync, readFileSync, writeFileSync } from "node:fs";

const [folder, page] = process.argv.slice(2), found = {}, pairs = JSON.parse(readFileSync(`${folder}/pairs.json`));
const elsewhere = globalThis.fetch;
globalThis.fetch = async (at, ...how) => (`${at}`.startsWith("file:") ? new Response(readFileSync(new URL(at))) : elsewhere(at, ...how));

globalThis.navigator ??= {};
let heard;
globalThis.postMessage = (data) => { if (data.error || data.opened || data.found) heard(data); };
for (const name of readdirSync(folder).filter((n) => /\.(nii(\.gz)?|nrrd|nhdr|mha|mhd|hdr|img|zip)$/.test(n))) {
  const files = [name, ...(pairs[name] ?? [])].map(async (part) => new File([await openAsBlob(`${folder}/${part}`)], part));
  await import(`${page}/worker.js?${encodeURIComponent(name)}`); // a worker of its own
  const ask = async (run) => {
    const answer = new Promise((resolve) => { heard = resolve; });
    globalThis.onmessage({ data: { files: await Promise.all(files), most: 1000, run } });
    return answer;
  };
  const { error, opened } = await ask(false);
  found[name] = { error, ...opened, shown: null };
  if (error) continue;
  writeFileSync(`${folder}/${name}.shown`, Buffer.from(opened.shown));
  const told = await ask(true);
  Object.assign(found[name], { error: told.error, amounts: told.found?.amounts, warnings: told.found?.warnings });
  for (const [i, mask] of ["lungs", "infection"].entries()) {
    if (told.found) writeFileSync(`${folder}/${name}.${mask}`, Buffer.from(await told.found.saved[i].arrayBuffer()));
  }
}
writeFileSync(`${folder}/found.json`, JSON.stringify(found));
