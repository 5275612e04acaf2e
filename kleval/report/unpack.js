"use strict";
// Text of a script element that is no script: UTF-8, deflated, in base64 (embed.packed). Rejects where a browser cannot unpack.
async function unpacked(element) {
  const coded = atob(element.textContent);
  const bytes = new Uint8Array(coded.length);
  for (let i = 0; i < coded.length; i++) bytes[i] = coded.charCodeAt(i);
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).text();
}
