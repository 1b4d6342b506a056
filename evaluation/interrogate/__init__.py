"""Questions with known answers, put to maps between fields: what have they learnt of gravity?"""
