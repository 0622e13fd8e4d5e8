/** The kernel forwards what is relayed, on the kernels that are out there: see boot.sh. */
import "../netns/relay_kernel_test.ts";
