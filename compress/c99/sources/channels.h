/* Copies the channels of an image to pixels that lie `step` apart, through a table if there is one. */
void kernel_channels(const int8_t *in, int32_t channels, int8_t *out, int32_t step, int32_t pixels,
                     const int8_t *table);
