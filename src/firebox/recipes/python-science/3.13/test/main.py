import matplotlib
import numpy
import pandas
import scipy.linalg

matrix = numpy.array([[2.0, 0.0], [0.0, 4.0]])
assert scipy.linalg.det(matrix) == 8.0
assert pandas.DataFrame(matrix).sum().tolist() == [2.0, 4.0]
assert matplotlib.get_backend().lower() == "agg"
print("OK")
