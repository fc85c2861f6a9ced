/*
 * Times MPI_Allreduce of float32 sums, each repetition from a barrier to the last rank's return, and prints
 * {"seconds": [...], "sum": one element of the result} on rank 0.
 */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  const long bytes = atol(argv[1]);
  const int repetitions = atoi(argv[2]);
  const int elements = (int)(bytes / (long)sizeof(float));
  int rank = 0, size = 0;
  MPI_Init(&argc, &argv);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  float* input = malloc(bytes);
  float* output = malloc(bytes);
  double* seconds = malloc(sizeof(double) * repetitions);
  for (int i = 0; i < elements; i++) input[i] = (float)(rank + 1) + (float)(i % 7);
  /* The first two touch memory and set up the connections. */
  for (int repetition = -2; repetition < repetitions; repetition++) {
    MPI_Barrier(MPI_COMM_WORLD);
    const double begin = MPI_Wtime();
    MPI_Allreduce(input, output, elements, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
    const double own = MPI_Wtime() - begin;
    double slowest = 0;
    MPI_Reduce(&own, &slowest, 1, MPI_DOUBLE, MPI_MAX, 0, MPI_COMM_WORLD);
    if (repetition >= 0) seconds[repetition] = slowest;
  }
  if (rank == 0) {
    printf("{\"seconds\": [");
    for (int i = 0; i < repetitions; i++) printf("%s%.9f", i == 0 ? "" : ", ", seconds[i]);
    printf("], \"sum\": %.9g}\n", (double)output[elements - 1]);
  }
  MPI_Finalize();
  return 0;
}
