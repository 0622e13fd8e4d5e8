/*
 * Preloaded into `ip fou` where the kernel has no fou module: the look-up of the family, which
 * fails, is answered with the family number 29, so that ip goes on and sends its request.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <linux/genetlink.h>
#include <linux/netlink.h>
#include <string.h>
#include <sys/socket.h>

ssize_t recvmsg(int fd, struct msghdr *msg, int flags) {
  ssize_t (*real)(int, struct msghdr *, int) = dlsym(RTLD_NEXT, "recvmsg");
  ssize_t length = real(fd, msg, flags);
  struct {
    struct nlmsghdr header;
    struct genlmsghdr generic;
    struct nlattr attr;
    __u16 family, padding;
  } answer = {
      {sizeof answer, GENL_ID_CTRL, 0, 0, 0},
      {CTRL_CMD_NEWFAMILY, 2, 0},
      {NLA_HDRLEN + 2, CTRL_ATTR_FAMILY_ID},
      29,
      0,
  };
  struct nlmsghdr *got = msg->msg_iov[0].iov_base;
  if (length < (ssize_t)sizeof answer || msg->msg_iov[0].iov_len < sizeof answer) return length;
  if (got->nlmsg_type != NLMSG_ERROR) return length;
  struct nlmsgerr *error = NLMSG_DATA(got);
  if (error->error == 0 || error->msg.nlmsg_type != GENL_ID_CTRL) return length;
  answer.header.nlmsg_seq = got->nlmsg_seq;
  answer.header.nlmsg_pid = got->nlmsg_pid;
  memcpy(got, &answer, sizeof answer);
  return sizeof answer;
}
