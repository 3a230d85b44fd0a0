/* Runs the stored inputs and compares the outputs with the stored ones. */

#include <stdio.h>

#include "model.h"
#include "test_vectors.h"

int main(void) {
    static int8_t out[MODEL_OUTPUT_BYTES];
    int different = 0;
    model_init();
    for (int i = 0; i < TEST_VECTORS; i++) {
        int count = 0, largest = 0;
        model_run(test_inputs[i], out);
        for (int j = 0; j < MODEL_OUTPUT_BYTES; j++) {
            const int difference = out[j] > test_outputs[i][j] ? out[j] - test_outputs[i][j] : test_outputs[i][j] - out[j];
            count += difference != 0;
            largest = difference > largest ? difference : largest;
        }
        printf("input %d: class %d, %d of %d outputs differ, the largest by %d\n", i, (int)model_argmax(out), count,
               MODEL_OUTPUT_BYTES, largest);
        different += count != 0;
    }
    printf("%d of %d inputs differ\n", different, TEST_VECTORS);
    return different != 0;
}
