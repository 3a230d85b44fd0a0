/* An image of other sides. For each row and column of it the one before in the image that is read, and how much of the
 * next one counts, in parts of KERNEL_PARTS. */
#define KERNEL_PARTS 2048
typedef struct {
    const int32_t *rows, *row_parts, *columns, *column_parts;
    int32_t height, width, channels, to_height, to_width;
    float multiplier;
    int8_t zero;
    KernelOutput to;
} KernelResize;
void kernel_resize(const KernelResize *p, const int8_t *in, int8_t *out);
