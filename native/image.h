/* Squashfs images, mounted where nobody else sees them. */
#ifndef FIREBOX_IMAGE_H
#define FIREBOX_IMAGE_H

/* Mount the image at a path, by a loop device that clears itself, on a new folder. tree: a folder that it must hold. */
int mount_image(const char *image, const char *folder, const char *tree);

#endif
