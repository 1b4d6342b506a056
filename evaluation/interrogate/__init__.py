"""Questions with known answers, put to emulators of displacement: what have they learnt of gravity?"""
