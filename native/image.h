/* Squashfs images, mounted where nobody else sees them. */
#ifndef FIREBOX_IMAGE_H
#define FIREBOX_IMAGE_H

/* Mount the image at a path, by a loop device that clears itself, on a new folder. */
int mount_image(const char *image, const char *folder);

#endif
