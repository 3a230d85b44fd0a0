#ifndef MODEL_H
#define MODEL_H

#include <stdint.h>

@MACROS@

/* Call once before the first run. */
void model_init(void);

/* One image, height x width x channels, to the outputs. */
void model_run(const int8_t *in, int8_t *out);

/* The index of the largest output, the first of equal ones. */
int32_t model_argmax(const int8_t *out);

#endif
