/** Ends an HTTP server: requests get `graceMs` to finish, clients that hang do not hold it. */
export async function endServer(
  server: { shutdown(): Promise<void> },
  graceMs: number,
): Promise<void> {
  let timer;
  const grace = new Promise<void>((resolve) => timer = setTimeout(resolve, graceMs));
  await Promise.race([server.shutdown(), grace]);
  clearTimeout(timer);
}
