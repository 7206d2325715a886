/* Squashfs images, mounted privately. */
#ifndef FIREBOX_IMAGE_H
#define FIREBOX_IMAGE_H

/* Mount an image on a new folder through a loop device with autoclear. tree: a folder that the image must contain. */
int mount_image(const char *image, const char *folder, const char *tree);

#endif
