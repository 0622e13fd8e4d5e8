/** Tells when nothing goes on, the cryptography of the runtime included, which answers from threads of its own. */
const SUBTLE = ["importKey", "sign", "verify", "deriveBits", "digest"] as const;
let pending = 0;
/** Beginnings and ends. */
let changes = 0;
for (const name of SUBTLE) {
  const real = crypto.subtle[name].bind(crypto.subtle) as (...args: unknown[]) => Promise<unknown>;
  const value = async (...args: unknown[]) => {
    pending++;
    changes++;
    try {
      return await real(...args);
    } finally {
      pending--;
      changes++;
    }
  };
  Object.defineProperty(crypto.subtle, name, { value });
}

const turns = new MessageChannel();
let nextTurn = () => {};
turns.port1.onmessage = () => nextTurn();

/** Resolves when nothing goes on that is not waiting for time: a turn went by without any of it. */
export async function settle(): Promise<void> {
  let before;
  do {
    before = changes;
    await new Promise<void>((resolve) => {
      nextTurn = resolve;
      turns.port2.postMessage(0);
    });
  } while (pending > 0 || changes !== before);
}
