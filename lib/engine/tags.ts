/** What an epoll event is about: links' devices by their numbers, sockets by theirs from here on. */
export const IN_TAG = 0x4000_0000;
