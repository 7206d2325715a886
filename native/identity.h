/* The launcher's own namespaces and root, which it enters before it creates any sandbox. */
#ifndef FIREBOX_IDENTITY_H
#define FIREBOX_IDENTITY_H

/* Enter a mount namespace; an unprivileged user first becomes root of a user namespace. map_uids, map_gids: the command lines
 * of newuidmap and newgidmap, or empty. Returns 1 when sandboxes have uids of their own, 0 when they share one. */
int enter_namespaces(const char **map_uids, const char **map_gids);

/* Replace the root by a tmpfs with the host at /host. Nothing is written to the host's disk. */
int enter_lean_root(void);

#endif
