#include "image.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/loop.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "kernel.h"

enum { ATTEMPTS = 20, LOOP_MAJOR_NUMBER = 7 };

/* Source: loop(4), LOOP_CTL_GET_FREE and LOOP_CONFIGURE. */
static int mount_on_free_device(int control, int image, const char *node, const char *folder)
{
    int number = (int)check("LOOP_CTL_GET_FREE", ioctl(control, LOOP_CTL_GET_FREE));
    if (number < 0)
        return -1;
    /* Create a device node: in a container /dev only has nodes from its start. */
    dev_t device_number = makedev(LOOP_MAJOR_NUMBER, (unsigned)number);
    if (check("mknod", mknod(node, S_IFBLK | 0600, device_number)) < 0)
        return -1;
    int done = -1, device = open_at(AT_FDCWD, node, O_RDWR, 0);
    if (device >= 0) {
        struct loop_config config = {
            .fd = (unsigned)image, .info = {.lo_flags = LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR}};
        done = (int)check("LOOP_CONFIGURE", ioctl(device, LOOP_CONFIGURE, &config));
        if (done == 0)
            done = (int)check("mount", mount(node, folder, "squashfs", MS_RDONLY | MS_NOSUID | MS_NODEV, NULL));
        close(device);
    }
    unlink(node);
    return done;
}

/* Check that an image contains the folder for the layer; otherwise unmount it. */
static int check_tree(const char *folder, const char *tree)
{
    struct stat status;
    int above = open_at(AT_FDCWD, folder, O_PATH | O_DIRECTORY, 0);
    bool is_there = above >= 0 && fstatat(above, tree, &status, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(status.st_mode);
    if (above >= 0)
        close(above);
    if (is_there)
        return 0;
    umount2(folder, MNT_DETACH);
    return fail("tree", ENOTDIR);
}

int mount_image(const char *path, const char *folder, const char *tree)
{
    char node[PATH_MAX];
    if (strlen(folder) + sizeof ".loop" > sizeof node)
        return fail("image", ENAMETOOLONG);
    strcat(strcpy(node, folder), ".loop");
    int image = open_at(AT_FDCWD, path, O_RDONLY, 0);
    if (image < 0)
        return -1;
    int control = open_at(AT_FDCWD, "/host/dev/loop-control", O_RDWR, 0);
    int done = control < 0 ? -1 : (int)check("mkdir", mkdir(folder, 0755));
    if (done == 0) {
        int attempts = 0;
        do /* another process may take the free device first */
            done = mount_on_free_device(control, image, node, folder);
        while (done < 0 && failure.number == EBUSY && ++attempts < ATTEMPTS);
        if (done == 0)
            done = check_tree(folder, tree);
        if (done < 0)
            rmdir(folder);
    }
    if (control >= 0)
        close(control);
    close(image);
    return done;
}
