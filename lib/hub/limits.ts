/** Token buckets: how often a source may make the hub compute. Bounded, whatever comes in. */

interface Bucket {
  tokens: number;
  atMs: number;
}

export interface BucketOptions {
  /** Refilled in a second. */
  perSecond: number;
  burst: number;
}

/** One bucket. */
export class RateLimit {
  readonly #options: BucketOptions;
  #bucket: Bucket | undefined;

  constructor(options: BucketOptions) {
    this.#options = options;
  }

  /** Whether there was a token, which is then gone. */
  take(nowMs: number): boolean {
    return takeFrom(
      this.#bucket ??= { tokens: this.#options.burst, atMs: nowMs },
      this.#options,
      nowMs,
    );
  }
}

/**
 * A bucket for each source. When there are too many sources the oldest bucket is forgotten: its
 * source starts with a full one, so a limit over all sources has to stand beside this.
 */
export class SourceLimits {
  readonly #options: BucketOptions & { maxSources: number };
  readonly #buckets = new Map<string, Bucket>();

  constructor(options: BucketOptions & { maxSources: number }) {
    this.#options = options;
  }

  get size(): number {
    return this.#buckets.size;
  }

  take(source: string, nowMs: number): boolean {
    let bucket = this.#buckets.get(source);
    if (!bucket) {
      bucket = { tokens: this.#options.burst, atMs: nowMs };
      if (this.#buckets.size >= this.#options.maxSources) {
        this.#buckets.delete(this.#buckets.keys().next().value!);
      }
      this.#buckets.set(source, bucket);
    }
    return takeFrom(bucket, this.#options, nowMs);
  }
}

function takeFrom(bucket: Bucket, { perSecond, burst }: BucketOptions, nowMs: number): boolean {
  const refilled = bucket.tokens + (nowMs - bucket.atMs) * perSecond / 1000;
  bucket.tokens = Math.min(burst, refilled);
  bucket.atMs = nowMs;
  if (bucket.tokens < 1) return false;
  bucket.tokens--;
  return true;
}
