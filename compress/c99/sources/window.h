/* A window over single channels; `ring_rows` of the input are kept aside where the output lies over the input. */
typedef struct {
    int16_t in_rows, in_columns, channels, out_rows, out_columns;
    int16_t kernel_rows, kernel_columns, top, left;
    int16_t ring_rows;
    int8_t row_stride, column_stride, row_dilation, column_dilation;
} KernelWindow;
