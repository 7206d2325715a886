/* The launcher's own identity and root: namespaces that it enters before it makes any sandbox. */
#ifndef FIREBOX_IDENTITY_H
#define FIREBOX_IDENTITY_H

/* Enter a mount namespace of its own; an ordinary user first becomes root of a user namespace. map_uids, map_gids: command
 * lines of newuidmap and newgidmap, empty where there are none. Returns 1 when sandboxes have uids of their own, 0 when they
 * share one. */
int enter_namespaces(const char **map_uids, const char **map_gids);

/* Replace the root by a tmpfs that shows the host at /host; nothing is written to the host's disk. */
int enter_lean_root(void);

#endif
